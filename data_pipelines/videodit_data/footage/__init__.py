"""From raw footage to clips: shots, measures, duplicates, filters. Needs the extra `beam`; reading does not."""
