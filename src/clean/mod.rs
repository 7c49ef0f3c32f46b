//! Classes, window arithmetic and the choice of one stream per patient: pure functions over readings, without patients or clocks.
