"""`python -m harmony_plugin.llamacpp`: the server."""

from .server.run import main

if __name__ == "__main__":
    main()
