"""DL/T 645-2007 (and the reading part of 1997): electricity meters on RS-485."""
