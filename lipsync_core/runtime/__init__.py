"""Small helpers without knowledge of faces or speech: files, configuration, threads, jobs."""
