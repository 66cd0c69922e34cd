"""From raw footage to clips: shots, measures, duplicates, filters. Needs the extra `footage`; reading does not."""
