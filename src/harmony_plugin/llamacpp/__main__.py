"""`python -m harmony_plugin.llamacpp`: the server."""

import sys

if __name__ == "__main__":
    try:
        from .server.run import main
    except ImportError as error:
        sys.exit(f"harmony-plugin: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    try:
        main()
    except KeyboardInterrupt:  # while it is still being set up
        sys.exit(130)
