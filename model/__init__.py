"""What a network computes: integers and bits, no hardware."""
