"""One run: its arguments, what it holds, the loop, evaluation, callbacks, and Trainer on top."""
