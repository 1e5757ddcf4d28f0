#!/usr/bin/env python
"""Django's command line. What the environment does not name is embedded for the command's duration."""

import os
import sys

from django.core.management import execute_from_command_line

from config.embedded.environment import embedded_environment


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.development")
    try:
        with embedded_environment(sys.argv):
            execute_from_command_line(sys.argv)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
