"""Parts that tests share: what stands in for a model in fast tests, second bundles, apps in process."""
