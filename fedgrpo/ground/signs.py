"""Two signs that a policy cannot learn, in a federation and alone: the fault and its cure."""

MAX_ZERO_SIGNAL = 0.95
"""Share of groups without signal above which there is nothing to learn."""
MAX_TRUNCATED = 0.5
"""Share of completions without an end above which most take no part."""


def no_signal(share: str, during: str = "") -> str:
    """Say that so many groups ("97 %") teach nothing, and for how long (", for 10 steps")."""
    return (
        f"In {share} of the groups every completion has the same reward{during}, so there is "
        "nothing to learn from. If rewards are low, use easier prompts, a finer reward, or raise "
        "grpo.temperature or grpo.group_size; if they are high, the model has learnt these prompts."
    )


def truncated(share: str, during: str = "") -> str:
    """Say that so many completions have no end, and for how long."""
    return (
        f"{share} of the completions reach grpo.max_completion_length without an end{during} and "
        "take no part in the update. Raise it (not set, it is 256, and 10 for tiny), set "
        "grpo.overlong_share, or check "
        "that the model ends its answers with the tokenizer's end token."
    )
