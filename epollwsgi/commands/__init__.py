"""The sub-commands, one module each; `table` names them, and `cli` runs what it finds there."""
