"""The workspace on disk: its folders, durable files, manifests, fingerprints and locks."""
