"""The collector: our own analytics backend. Takes captures, keeps what is allowed, shows it.

One process owns the data directory. A request is decoded (:mod:`.decode`), read as one of the three wire
formats (:mod:`.wire`), judged against the allow-list (:mod:`.schema`, :mod:`.ingest`), fsynced to the journal
(:mod:`.journal`) and only then answered. The journal is bulk loaded into a store (:mod:`.store`,
:mod:`.clickhouse`) that answers the query API (:mod:`.queries`). :mod:`.app` puts them together.
"""
