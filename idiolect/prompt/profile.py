"""How explicit preferences (text that a user or application wrote) enter the conversation.

The implicit user tokens and the explicit text are concatenated, tokens first (arXiv 2402.05133, section 4.1).
The trainer shows the text to user and generic prompts alike, so that an unknown user may bring one too.
"""

from collections.abc import Mapping, Sequence


def with_profile(messages: Sequence[Mapping[str, str]], profile: str | None) -> list[dict[str, str]]:
    """The messages with `profile` put in front of the first user turn; unchanged copies without a profile."""
    copies = [dict(message) for message in messages]
    if profile:
        for message in copies:
            if message["role"] == "user":
                message["content"] = f"About me: {profile}\n\n{message['content']}"
                break
    return copies
