"""Generator of the phantom data set: synthetic chest radiographs in the layout of NIH ChestX-ray14 or CheXpert."""
