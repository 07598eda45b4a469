"""`report.html`: a report as one page that needs nothing else, with plots, and behind every plot its table."""

from soupmix.evaluate.page.page import PAGE, page, write_page

__all__ = ["PAGE", "page", "write_page"]
