"""Words that mark a friendly or an unfriendly tone. Measuring tone by a list measures the list: the cards say so."""

import re

__all__ = ["FRIENDLY", "UNFRIENDLY", "marks"]

FRIENDLY = re.compile(
    r"!|[:;]-?\)|[\U0001F600-\U0001F64F]|\b(?:great question|happy to|glad|love|lovely|wonderful|amazing|fantastic|awesome|"
    r"excited|exciting|delight\w*|enjoy|fun|thank\w*|welcome|friend\w*|hope|hi|hello|hey|good luck|feel free|please|let's|"
    r"fascinating|take care|cheers|my dear|warm\w*|pleasure|you've got this)\b",
    re.IGNORECASE,
)
UNFRIENDLY = re.compile(
    r"\b(?:obviously|whatever|pointless|stupid|silly|dumb|lazy|boring|annoying|bother\w*|waste\w*|useless|ridiculous|nonsense|"
    r"i don't care|not my problem|who cares|look it up|figure it out|already know|should know|do i (?:really )?have to|"
    r"leave me|stop asking|don't ask|fine\.|ugh|if you must|get over it|deal with it|tired of|hurry up|clearly|"
    r"no idea why you|isn't it obvious|common sense)\b",
    re.IGNORECASE,
)


def marks(pattern: re.Pattern[str], text: str) -> int:
    """How many marks of a tone occur in a text."""
    return len(pattern.findall(text))
