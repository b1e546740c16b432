"""The cluster of a workspace: what is kept of it on disk, and how this laptop starts, joins and ends one."""
