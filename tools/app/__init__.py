"""A local web page that shows the predictions of the trained networks for an uploaded radiograph."""
