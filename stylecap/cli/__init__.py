"""The command line: flags become options, errors exit codes, progress a line on the terminal."""
