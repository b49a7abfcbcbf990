"""Proof that nothing is lost: crashes, refusals of the disk, damage, many processes."""
