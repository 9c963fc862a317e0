import { diffWordsWithSpace } from "diff";

export interface Piece {
  readonly text: string;
  readonly differs: boolean;
}

/** `text` in pieces, those marked that `before` does not have in their place. */
export function pieces(before: string, text: string): Piece[] {
  return diffWordsWithSpace(before, text)
    .filter((part) => !part.removed)
    .map((part) => ({ text: part.value, differs: part.added && part.value.trim() !== "" }));
}
