"""The board for triagers: open alerts in memory, filters, the threshold, pages, badges."""
