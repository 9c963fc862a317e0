"""Which of two replies a user is shown first: a coin that is the user's and the pair's own.

Who always takes the first reply then takes one kind of reply as often as the other. It is the same coin whenever it is
asked for, so that a question that is asked again looks the same.
"""

import hashlib

from idiolect.bank import Question


def swapped(user_id: str, of: str) -> bool:
    """Whether the second comes first; `of` names the pair."""
    return hashlib.sha256(f"{user_id}\0{of}".encode()).digest()[0] % 2 == 1


def shown(user_id: str, question: Question) -> tuple[str, str]:
    """The two replies of a question, in the order in which the user is shown them."""
    sides = question.first, question.second
    return sides[::-1] if swapped(user_id, question.question_id) else sides
