"""The networks: one file each, its frozen config beside its module; ``registry`` names them all."""
