"""One checkpoint by every runtime that people use today: time, memory, bytes and agreement, from one run."""
