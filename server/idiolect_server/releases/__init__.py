"""The bundles being served: each is a release with one owner of all that is its own."""
