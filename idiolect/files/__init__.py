"""The files of a bundle, which somebody else wrote: opened once, read within bounds, refused by a typed error."""
