"""The kinds of subscriber: one small module each, holding its mapped class and its frozen deliveree."""
