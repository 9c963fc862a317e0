"""What a stream has said so far."""

from collections.abc import Iterator

from idiolect_client.errors import StreamInterrupted, api_error
from idiolect_client.events import EventDecoder
from idiolect_client.results import Generation, build, decode


class Transcript:
    """Collects the text of a stream, and the generation that its last event completes."""

    def __init__(self) -> None:
        self._decoder = EventDecoder()
        self._pieces: list[str] = []
        self.generation: Generation | None = None

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The pieces of text that this chunk completes.

        Raises:
            APIError: the server sent an error event.
            UnexpectedResponse: an event is not what an Idiolect server sends.
        """
        for event in self._decoder.feed(chunk):
            if event.name == "error":
                raise api_error(200, event.data)
            if event.name == "text":
                piece = str(decode(event.data).get("text", ""))
                self._pieces.append(piece)
                yield piece
            elif event.name == "done":
                text = "".join(self._pieces)
                self.generation = build(Generation, {**decode(event.data), "text": text})

    def end(self, cause: Exception | None = None) -> None:
        """The body has ended, by itself or by an error of the connection.

        Raises:
            StreamInterrupted: the last event is missing.
        """
        # An error after the last event costs nothing: the generation is complete.
        if self.generation is None:
            reason = f": {type(cause).__name__} {cause}".rstrip() if cause else ""
            message = f"The stream ended before the reply was complete{reason}"
            raise StreamInterrupted(message, text="".join(self._pieces)) from cause
