"""What is known of several runs, put side by side for people."""
