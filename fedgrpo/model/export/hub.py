"""An adapter, or a merged model, as a repository on the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from fedgrpo.ground.errors import RunError


def publish(folder: Path, name: str) -> str:
    """Upload a folder into a repository, which is made as a private one if there is none.

    Parameters
    ----------
    folder:
        With its card.
    name:
        ``OWNER/NAME``. Who may write there is whom ``hf auth login`` or ``HF_TOKEN`` names.

    Returns
    -------
    str
        Where it can be seen.

    Raises
    ------
    RunError
        If the Hub refuses or cannot be reached, with its reason.
    """
    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        seen = api.upload_folder(repo_id=name, folder_path=folder, commit_message="From fedgrpo")
    except HFValidationError as error:
        raise RunError(f"--hub {name!r} is no name: {error}", cure="write OWNER/NAME") from None
    except HfHubHTTPError as error:
        said = error.server_message or str(error).splitlines()[0]
        cure = "log in with `hf auth login` as somebody who may write there"
        raise RunError(f"the Hub refuses {name}: {said}", cure=cure) from None
    except OSError as error:
        raise RunError(
            f"the Hub ({api.endpoint}) cannot be reached: {type(error).__name__}",
            cure="see whether this machine reaches it; the adapter stays where it is",
        ) from None
    return str(seen)
