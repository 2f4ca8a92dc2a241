"""The field's claims, run with this package on the embedded policy: `make study`."""
