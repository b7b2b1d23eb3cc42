"""`python -m harmony_plugin.llamacpp`: the server."""

import sys

if __name__ == "__main__":
    try:
        try:
            from .server.run import main
        except ImportError as error:
            sys.exit(f"harmony-plugin: {error}")
        main()
    except KeyboardInterrupt:  # while it is still being imported, or set up
        sys.exit(130)
