"""The collector's pages: rendered here, over the same questions as the query API, opened by an access token.

:mod:`.site` is the door and the routes, :mod:`.views` what each page says. Charts are drawn by uPlot (MIT),
which lies with the other static files; without script there are the same numbers as tables.
"""
