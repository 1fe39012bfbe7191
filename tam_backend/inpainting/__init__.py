"""Taking objects out of videos: engines that fill the holes that they leave."""
