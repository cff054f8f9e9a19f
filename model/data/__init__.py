"""Images and labels: data sets, pictures, and the files that they come in."""
