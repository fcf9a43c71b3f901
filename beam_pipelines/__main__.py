"""`python -m beam_pipelines COMMAND …`: the same as `broetchen COMMAND …`."""

from beam_pipelines.cli import main

if __name__ == "__main__":
    main()
