"""A page on this machine where one shows the networks an X-ray."""
