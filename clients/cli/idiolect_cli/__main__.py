"""python -m idiolect_cli: the same command, for launchers that want a module."""

from idiolect_cli.main import main

if __name__ == "__main__":  # vLLM's processes import this module again
    main()
