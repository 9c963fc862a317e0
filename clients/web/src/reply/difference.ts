import { diffWordsWithSpace } from "diff";

export interface Piece {
  readonly text: string;
  readonly differs: boolean;
}

/** `text` in pieces, those marked that `before` does not have in their place: whole runs of words, no space around. */
export function pieces(before: string, text: string): Piece[] {
  const parts = diffWordsWithSpace(before, text).filter((part) => !part.removed);
  const found: Piece[] = [];
  for (const part of parts) {
    for (const piece of part.value.split(/(^\s+|\s+$)/).filter((piece) => piece !== "")) {
      found.push({ text: piece, differs: part.added && piece.trim() !== "" });
    }
  }
  return found.reduce<Piece[]>((runs, piece) => {
    const [one, gap] = runs.slice(-2);
    if (piece.differs && one?.differs && gap !== undefined && /^ +$/.test(gap.text)) {
      return [...runs.slice(0, -2), { text: one.text + gap.text + piece.text, differs: true }];
    }
    return [...runs, piece];
  }, []);
}
