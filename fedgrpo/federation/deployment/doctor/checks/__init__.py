"""The checks themselves: small functions from what is there to what is found."""

from fedgrpo.federation.deployment.doctor.checks import (  # noqa: F401 - they make themselves known
    agreed,
    clock_and_key,
    committee,
    machine,
    model_and_reward,
    network,
    prompts_and_policy,
    service,
    state_and_disk,
)
