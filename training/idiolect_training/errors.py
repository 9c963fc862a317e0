"""What can go wrong in a training run."""

from idiolect.errors import IdiolectError


class BadPreference(IdiolectError):
    """A line of a preferences file cannot be used; the message names file and line."""

    code = "bad_preference"


class BadRunConfig(IdiolectError):
    """A run file has an unknown key or an impossible value."""

    code = "bad_run_config"


class CheckpointMismatch(IdiolectError):
    """A checkpoint was written by another run configuration."""

    code = "checkpoint_mismatch"


class Diverged(IdiolectError):
    """The loss became NaN, infinite or many times what it was at the start; the message names the step."""

    code = "diverged"


class NotEvaluated(IdiolectError):
    """The run folder holds no evaluation that could be read."""

    code = "not_evaluated"


class LoopingReplies(IdiolectError):
    """A user's replies repeat themselves more than the generic user's: the bundle is not worth serving."""

    code = "looping_replies"


class JudgeUnavailable(IdiolectError):
    """The judge's endpoint cannot be asked, or there is nothing to ask it."""

    code = "judge_unavailable"


class BaseModelUnsupported(IdiolectError):
    """The trainer does not know the base model's architecture, or does not compute what the model itself computes."""

    code = "base_model_unsupported"
