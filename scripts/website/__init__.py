"""Build the site: pages of the repository, the lecture and the reference, from `scripts/site.sh`."""
