"""Records: files whose alerts and decisions need more than one column each.

Belongs here: fields inside fields, times in any form, decisions in the records of alerts, JSON documents, sheets, logs.
Does not belong here: plain tables (`readers/`), which are read a column at a time and many times as fast.
"""
