"""The names under which the demo's data set, its task and its model are found."""

TASK = "headlines"
MODEL = "all-MiniLM-L6-v2"
