"""A small but real SigLIP, trained from scratch on emoji drawings and their names."""
