"""ISO 8601 order and a 24-hour clock that names its zone: nobody has to guess which day or whose hour is meant."""

DATE_FORMAT = "Y-m-d"
DATETIME_FORMAT = "Y-m-d H:i:s T"
