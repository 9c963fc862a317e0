"""The root of every error that Idiolect raises, and the errors of the shared core.

Errors carry data, never HTTP: the server maps codes to statuses in one table (`server/idiolect_server/errors.py`).
"""

from typing import ClassVar


class IdiolectError(Exception):
    """An error with a stable `code`, whether a retry can help, and a hint for the person who reads it."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ChatTemplateUnsupported(IdiolectError):
    """The base model's chat template has no place where user tokens can safely go, or does not end a reply."""

    code = "chat_template_unsupported"


class LayoutError(IdiolectError):
    """The prompt has no place for user tokens: what opens a user turn is not where it should be."""

    code = "no_user_turn"


class UserCodeError(IdiolectError):
    """A user code has the wrong length, is not finite, or lies outside its model's domain."""

    code = "bad_user_code"


class BundleError(IdiolectError):
    """A bundle cannot be used. The message names the file and what is wrong with it."""

    code = "bad_bundle"


class BundleMissing(BundleError):
    """There is no bundle at the path, or one of its files is absent."""

    code = "bundle_missing"


class BundleFormatUnsupported(BundleError):
    """The manifest states a format version that this reader does not know."""

    code = "bundle_format_unsupported"


class BundleCorrupt(BundleError):
    """A file differs from its digest, or the manifest does not parse."""

    code = "bundle_corrupt"


class BundleShapeMismatch(BundleError):
    """A tensor is absent, extra, or has another shape or type than the manifest says."""

    code = "bundle_shape_mismatch"


class ModelMissing(BundleError):
    """The base model is neither a folder nor a Hugging Face id that can be had."""

    code = "model_missing"


class BaseModelMismatch(BundleError):
    """The bundle was trained on another base model than the one at hand."""

    code = "base_model_mismatch"
