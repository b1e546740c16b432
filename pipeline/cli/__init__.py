"""The command line: flags in, one call, a result out."""
