"""What a notebook needs beside the stack itself: several processes from one call, in launch.py."""
