"""Named data sets, users' own files, splits and binarisation."""
